"""What is wrong with a request becomes its answer, and no line in a log: whoever reaches the port can cause it."""

from fastapi import HTTPException, Request, Response
from fastapi.exception_handlers import http_exception_handler
from fastapi.responses import JSONResponse
from flwr.supercore.error import FlowerError
from flwr.supercore.error.catalog import API_ERROR_MAP
from starlette.middleware.base import RequestResponseEndpoint

from server.link.gate import status_of


async def quiet_errors(request: Request, call_next: RequestResponseEndpoint) -> Response:
    """Answer errors as Flower's `http_error_translator` does, which logs each of them and calls the unexpected 500."""
    try:
        return await call_next(request)
    except HTTPException as error:
        return await http_exception_handler(request, error)
    except FlowerError as error:
        spec = API_ERROR_MAP[error.code]
        return JSONResponse(error.to_json(spec.public_message), spec.http_status_code, spec.http_headers)
    except Exception as error:  # noqa: BLE001 - Flower's handlers trust what they are sent
        return JSONResponse({"detail": f"this request cannot be served ({type(error).__name__})"}, status_of(error))
