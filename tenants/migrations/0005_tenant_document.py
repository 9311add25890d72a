"""What lists give of a tenant, written when it changes and not at every reading."""

from django.db import migrations, models


# Why this may call itself immutable: see the migration grant_document of policies.
FUNCTION = """
CREATE FUNCTION tenants_tenant_document(
    name text, display_name text, email text, team text, ingress_host text, suspended boolean, created_at timestamptz
) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT left(pg_catalog.row_to_json(tenant)::text, -1) || ',"phase":'
    FROM (SELECT name, display_name AS "displayName", email, nullif(team, '') AS team,
        nullif(ingress_host, '') AS "ingressHost", suspended,
        pg_catalog.to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS "createdAt") AS tenant
$$
"""


class Migration(migrations.Migration):

    dependencies = [
        ('tenants', '0004_cluster_tenants'),
    ]

    operations = [
        migrations.RunSQL(FUNCTION, "DROP FUNCTION tenants_tenant_document"),
        migrations.AddField(
            model_name='tenant',
            name='document',
            field=models.GeneratedField(db_persist=True, expression=models.Func(models.F('name'), models.F('display_name'), models.F('email'), models.F('team'), models.F('ingress_host'), models.F('suspended'), models.F('created_at'), function='tenants_tenant_document'), output_field=models.TextField()),
        ),
    ]
