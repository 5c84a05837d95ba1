"""The engine for SQL servers: PostgreSQL, MySQL and MariaDB, over SQLAlchemy's drivers."""
