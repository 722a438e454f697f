"""How Alembic runs our migrations: on the connection that `vision/payments/migrate.py` gives it.

The law: a migration is finished history: it names its tables and columns itself and imports nothing
of the server, which goes on changing. Each can be run again after it was cut off half way, because
MySQL commits at every change of the schema.
"""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"])

with context.begin_transaction():
    context.run_migrations()
