"""The OEHASHEQUIV protocol without I/O: framing, handshake, commands, both roles."""
