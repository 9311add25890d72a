#!/bin/sh
# Makes the role and the database `litellm`, unless they are there, and gives the role its password. Where PostgreSQL is
# says the environment (PGHOST and its like).
#
#   litellm-database.sh FILE_WITH_THE_ADMINISTRATORS_PASSWORD FILE_WITH_THE_ROLES_PASSWORD
set -eu
PGPASSWORD="$(cat "$1")"
ROLE_PASSWORD="$(cat "$2")"
export PGPASSWORD ROLE_PASSWORD
psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 <<'SQL'
\getenv password ROLE_PASSWORD
SELECT 'CREATE ROLE litellm LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'litellm') \gexec
ALTER ROLE litellm PASSWORD :'password';
SELECT 'CREATE DATABASE litellm OWNER litellm' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'litellm') \gexec
SQL
