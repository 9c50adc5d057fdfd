"""`main.py` whose HTTP roles answer one route more, `POST /v1/nothing` with `202`: what the application costs by itself."""

import sys
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
NOTHING: Final = "/v1/nothing"


def with_nothing(create_app: Any) -> Any:
    """`create_app`, with the route beside its own: it reads the body, as every answer to it has to, and looks at nothing."""
    from fastapi import APIRouter
    from starlette.requests import Request
    from starlette.responses import Response

    router = APIRouter()

    @router.post(NOTHING, status_code=202, response_class=Response)
    async def nothing(request: Request) -> Response:
        await request.body()
        return Response(b'{"messageId":"snd_00000000000000000000000000","status":"queued"}', 202)

    def wrapped(services: Any, *, routers: Any, streams: Any) -> Any:
        return create_app(services, routers=[*routers, router], streams=streams)

    return wrapped


if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    import main
    from gateways.http import opening

    opening.create_app = with_nothing(opening.create_app)
    main.cli = main.front_door(Path(__file__), reads=main.Reads(), run_roles=main.run_roles, prepare=main.prepare)
    main.main()
