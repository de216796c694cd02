"""C and C++: what a file includes, and functions of which the repository has one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator

from rotary_batch.core import Symbol
from rotary_batch.repo.resolve.dialect import CALLABLE_KINDS, Dialect, joined, only, parent_of
from rotary_batch.repo.resolve.meanings import FileNames, Meaning, Module, Source

_MAX_INCLUDED = 200  # files that one file includes, directly or not
# Functions of the C library: one of the same name in a repository is theirs only where it is declared.
# fmt: off
_LIBRARY = frozenset({
    "abort", "abs", "accept", "access", "alarm", "assert", "atexit", "atof", "atoi", "atol", "bind", "bsearch",
    "calloc", "chdir", "chmod", "chown", "clearerr", "clock", "close", "closedir", "connect", "creat", "dup", "dup2",
    "environ", "error", "exec", "execl", "execv", "execve", "execvp", "exit", "_exit", "fclose", "fcntl", "fdopen",
    "feof", "ferror", "fflush", "fgetc", "fgets", "fileno", "fopen", "fork", "fprintf", "fputc", "fputs", "fread",
    "free", "freeaddrinfo", "fscanf", "fseek", "fstat", "fsync", "ftell", "ftruncate", "fwrite", "getaddrinfo", "getc",
    "getchar", "getcwd", "getenv", "getline", "getopt", "getpid", "gets", "gettimeofday", "gmtime", "index",
    "inet_addr", "ioctl", "isalnum", "isalpha", "isatty", "isdigit", "isspace", "isupper", "islower", "kill", "labs",
    "link", "listen", "localtime", "longjmp", "lseek", "lstat", "main", "malloc", "memchr", "memcmp", "memcpy",
    "memmove", "memset", "mkdir", "mkstemp", "mktime", "mmap", "munmap", "open", "opendir", "pause", "perror", "pipe",
    "poll", "popen", "pow", "printf", "putc", "putchar", "puts", "qsort", "raise", "rand", "read", "readdir",
    "readlink", "realloc", "recv", "remove", "rename", "rewind", "rmdir", "round", "scanf", "select", "send", "setenv",
    "setjmp", "setlocale", "signal", "sin", "sleep", "snprintf", "socket", "sprintf", "sqrt", "srand", "sscanf", "stat",
    "strcasecmp", "strcat", "strchr", "strcmp", "strcpy", "strdup", "strerror", "strftime", "strlen", "strncmp",
    "strncpy", "strrchr", "strstr", "strtod", "strtok", "strtol", "strtoul", "symlink", "sync", "system", "tan", "time",
    "tolower", "toupper", "truncate", "umask", "ungetc", "unlink", "usleep", "vfprintf", "vprintf", "vsnprintf", "wait",
    "waitpid", "write", "yield", "swap", "move", "forward", "min", "max", "sort", "find",
})
# fmt: on


class CFamily(Dialect):
    """A name is of the file, of what it includes, or the one function of that name that is not static."""

    def __init__(self, source: Source, files: Callable[[str], FileNames], languages: frozenset[str]) -> None:
        super().__init__(source, files, languages)
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for path in sorted(self.paths):
            self._by_name[path.rpartition("/")[2]].append(path)
        self._last: tuple[str, list[str]] = ("", [])

    def modules(self, module: str, here: FileNames) -> Iterator[Meaning]:
        """The file that `"a/b.h"` or `<a/b.h>` names: beside this one, else the one whose path ends so."""
        name = module.strip('"<>')
        beside = joined(parent_of(here.path), name)
        if beside is not None and beside in self.source.languages and module.startswith('"'):
            yield Module(beside)
            return
        end = joined("", name.lstrip("./")) or ""
        found = [path for path in self._by_name.get(end.rpartition("/")[2], ()) if f"/{path}".endswith(f"/{end}")]
        if len(found) == 1:
            yield Module(found[0])

    def _included(self, here: FileNames) -> list[str]:
        """The files of the repository that a file includes, directly or not, itself left out."""
        if self._last[0] == here.path:
            return self._last[1]
        included, waiting = {here.path: None}, [here]
        while waiting and len(included) <= _MAX_INCLUDED:
            file = waiting.pop()
            for star in file.stars[:_MAX_INCLUDED]:
                for space in self.modules(star.module, file):
                    if isinstance(space, Module) and space.path not in included:
                        included[space.path] = None
                        waiting.append(self.files(space.path))
        self._last = here.path, list(included)[1:]
        return self._last[1]

    def outside(self, name: str, here: FileNames) -> Symbol | None:
        """A definition in an included file, or the only function of that name, declared there or called freely."""
        included = self._included(here)
        seen = [self.files(path).symbols.get(name) for path in included]
        known = [symbol for symbol in seen if symbol is not None]
        defined = only(symbol for symbol in known if symbol.kind != "declaration")
        if defined is not None:
            return defined
        if name in _LIBRARY and not known:
            return None
        found = [s for s in self.source.named(name, None) if self.is_top(s) and not is_static(s)]
        one = only(symbol for symbol in found if symbol.kind in CALLABLE_KINDS)
        return one or only(known)

    def member_elsewhere(self, around: Symbol, name: str) -> Symbol | None:
        """A member that is defined outside of its class."""
        found = self.source.members_named(name, f"{around.qualified_name}.{name}", "")
        found = found or self.source.members_named(name, f"{around.name}.{name}", "")
        return only(found)


def is_static(symbol: Symbol) -> bool:
    """Whether a function is seen in its own unit only."""
    return "static" in symbol.signature.partition("(")[0].split()
