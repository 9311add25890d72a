#!/bin/sh
# Makes the secrets that docker-compose.yml mounts, in deploy/compose/secrets/. What is there already is kept.
#
# The folder is closed to other users of this machine. The files in it can be read by all, because compose mounts them
# as they are and the containers run as a user of their own.
set -eu
cd -- "$(dirname -- "$0")"
mkdir -p secrets
chmod 0700 secrets

random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
# 32 bytes in URL-safe base64.
random_key() { dd if=/dev/urandom bs=32 count=1 2>/dev/null | base64 | tr '+/' '-_'; }

# keep NAME VALUE: write the file unless it holds something.
keep() {
    [ -s "secrets/$1" ] || printf '%s\n' "$2" >"secrets/$1"
    chmod 0444 "secrets/$1"
}

keep secret_key "$(random)$(random)"
keep encryption_keys "$(random_key)"
keep api_token "$(random)"
keep admin_password "$(random)"
keep postgres_password "$(random)"
keep database_url "postgresql://opencrane:$(cat secrets/postgres_password)@postgres:5432/opencrane"
keep valkey_conf "requirepass $(random)"
keep litellm_master_key "sk-$(random)"
keep litellm_salt_key "sk-$(random)"
keep litellm_database_password "$(random)"
keep litellm_database_url "postgresql://litellm:$(cat secrets/litellm_database_password)@postgres:5432/litellm"
keep redis_url "redis://:$(sed -n 's/^requirepass //p' secrets/valkey_conf)@valkey:6379/0"

if [ -s secrets/kubeconfig ]; then
    chmod 0444 secrets/kubeconfig
else
    echo "Now put a kubeconfig for the cluster at $(pwd)/secrets/kubeconfig and run this again." >&2
fi
