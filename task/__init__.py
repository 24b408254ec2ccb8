"""What is learned, and the words that client, server and strategies share. Imports nothing else of the project."""
