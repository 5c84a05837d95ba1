"""The server: sessions, the table from command to rule, composition and lifecycle."""

from hashserv.model import ALL_PERMISSIONS, DEFAULT_ANON_PERMS

__all__ = ["ALL_PERMISSIONS", "DEFAULT_ANON_PERMS"]
