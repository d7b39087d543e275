"""``prefrestore serve``: the page and the HTTP service."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Annotated

import typer

from prefrestore.cli.choices import Device, Precision
from prefrestore.cli.face_options import FaceSize

TOKEN_VARIABLE = "PREFRESTORE_TOKEN"


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; any but this machine's own needs a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8420,
    name: Annotated[
        list[str] | None, typer.Option(metavar="HOST", help="A further name by which it is called. May be repeated.")
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Show the page in the browser.")] = False,
    folder: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="For photos, results and judgements; this user's own if not said."),
    ] = None,
    keep_days: Annotated[float, typer.Option(help="Results are removed after so many days.")] = 7.0,
    queue: Annotated[int, typer.Option(min=1, help="Most photos that wait or run.")] = 32,
    example: Annotated[bool, typer.Option(help="An empty folder begins with an example photo.")] = True,
    device: Annotated[Device, typer.Option(help="auto: a GPU if there is one.")] = Device.auto,
    dtype: Annotated[Precision, typer.Option(help="Precision of the model.")] = Precision.float32,
    preset: Annotated[str, typer.Option(help="compact, or tiny (random weights, for tests).")] = "compact",
    face_size: FaceSize = None,
    model: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Pipeline folder to use in place of the package's.")
    ] = None,
    adapter: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Preference adapter to use in place of the package's.")
    ] = None,
    no_preference: Annotated[
        bool, typer.Option("--no-preference", help="The base model, without its preference adapter.")
    ] = False,
) -> None:
    """Serve a page to restore photos and to judge restorations, and the same over HTTP.

    Only this machine can reach it, unless --host says otherwise: then every client needs the token, which is printed
    once (or is taken from the environment's PREFRESTORE_TOKEN).
    """
    from prefrestore.serve.settings import Settings, default_folder, is_loopback

    token = os.environ.get(TOKEN_VARIABLE) or (None if is_loopback(host) else secrets.token_urlsafe(24))
    settings = Settings(
        folder=(folder or default_folder()).expanduser().resolve(),
        host=host,
        port=port,
        names=tuple(name or ()),
        token=token,
        preset=preset,
        face_size=face_size,
        model=model,
        preference=adapter or not no_preference,
        device=device.value,
        dtype=dtype.value,
        queue=queue,
        keep_days=keep_days,
        example=example,
    )
    try:
        from prefrestore.serve.run import run
    except ImportError as error:
        from prefrestore.errors import MissingDependencyError

        raise MissingDependencyError(
            f"the service needs what is not installed ({error}): pip install 'prefrestore[serve]'"
        ) from error
    run(settings, open_page=open_page, say=typer.echo)
