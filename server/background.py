"""A function that runs beside the main thread, and whose result or exception is asked for later."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Background(Generic[T]):
    """Starts at once.

    Args:
        function: called in a daemon thread.
    """

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._value: T | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            self._value = self._function()
        except BaseException as error:  # noqa: BLE001 - raised again where the result is asked for
            self._error = error

    @property
    def is_over(self) -> bool:
        """Whether the function has returned or raised."""
        return not self._thread.is_alive()

    @property
    def succeeded(self) -> bool:
        """Whether the function has returned."""
        return self.is_over and self._error is None

    def raise_if_failed(self) -> None:
        """Raise what the function raised, if it is over already."""
        if self.is_over:
            self.result()

    def result(self, timeout: float | None = None) -> T:
        """What the function returned or raised.

        Raises:
            TimeoutError: if it is not through in that many seconds.
        """
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise TimeoutError
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]
