"""The ends of connections: sockets to listen on, and streams for clients."""
