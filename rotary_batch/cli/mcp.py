"""`mcp`."""

from __future__ import annotations

from rotary_batch import commands
from rotary_batch.cli.options import Config, Db
from rotary_batch.cli.settings import command_settings
from rotary_batch.errors import UnavailableError


def mcp(db: Db = None, config: Config = None) -> None:
    """Let a coding agent ask the index (MCP over stdio).

    It only reads. It needs the extra `mcp`: pip install 'rotary-batch[mcp]'.

    Examples:
        claude mcp add rotary-batch -- rotary-batch mcp
    """
    try:
        serve = commands.mcp.serve
    except ImportError as error:
        advice = "install it with `pip install 'rotary-batch[mcp]'`"
        raise UnavailableError(f"mcp: {error.name or 'the package'} is not installed; {advice}") from error
    serve(command_settings(config, [], db=db))
