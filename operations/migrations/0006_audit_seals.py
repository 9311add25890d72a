"""Seals of the audit trail, the token an entry's actor used, files that jobs make.

Seals are append-only like the trail, by triggers of the same function as in 0002.
"""

import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models

import operations.models

FORWARDS = """
CREATE FUNCTION operations_seals_are_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'Seals are append-only: % is refused', TG_OP USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER operations_seal_no_change BEFORE UPDATE OR DELETE ON operations_auditseal
    FOR EACH STATEMENT EXECUTE FUNCTION operations_seals_are_append_only();
CREATE TRIGGER operations_seal_no_truncate BEFORE TRUNCATE ON operations_auditseal
    FOR EACH STATEMENT EXECUTE FUNCTION operations_seals_are_append_only();
ALTER TABLE operations_auditseal ENABLE ALWAYS TRIGGER operations_seal_no_change;
ALTER TABLE operations_auditseal ENABLE ALWAYS TRIGGER operations_seal_no_truncate;
"""

BACKWARDS = """
DROP TRIGGER operations_seal_no_change ON operations_auditseal;
DROP TRIGGER operations_seal_no_truncate ON operations_auditseal;
DROP FUNCTION operations_seals_are_append_only();
"""


class Migration(migrations.Migration):
    dependencies = [("operations", "0005_metrics")]

    operations = [
        migrations.AddField("auditentry", "actor_token", models.TextField(blank=True, db_default="")),
        migrations.AddField("job", "actor_token", models.TextField(blank=True, db_default="")),
        migrations.CreateModel(
            name="AuditSeal",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                (
                    "version",
                    models.SmallIntegerField(help_text="How entries and seals are written down to be hashed."),
                ),
                ("chain", models.IntegerField()),
                ("floor_id", models.BigIntegerField()),
                ("last_xid", models.BigIntegerField()),
                ("last_id", models.BigIntegerField()),
                ("max_id", models.BigIntegerField()),
                ("rows", models.IntegerField()),
                ("entries", models.BinaryField()),
                ("previous_hash", models.CharField(max_length=64)),
                ("hash", models.CharField(max_length=64)),
                ("sealed_at", models.DateTimeField(db_default=operations.models.clock_timestamp())),
            ],
            options={"ordering": ["id"]},
        ),
        migrations.CreateModel(
            name="AuditVerification",
            fields=[
                ("id", models.SmallIntegerField(default=1, primary_key=True, serialize=False)),
                ("next_seal", models.BigIntegerField(default=0)),
                ("checked_at", models.DateTimeField(blank=True, null=True)),
                ("round_finished_at", models.DateTimeField(blank=True, null=True)),
                ("broken_seal", models.BigIntegerField(blank=True, null=True)),
                ("broken_entry", models.BigIntegerField(blank=True, null=True)),
                ("broken_why", models.TextField(blank=True)),
                ("broken_since", models.DateTimeField(blank=True, null=True)),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(condition=models.Q(("id", 1)), name="audit_verification_one_row")
                ]
            },
        ),
        migrations.CreateModel(
            name="JobChunk",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("number", models.PositiveIntegerField()),
                ("content", models.BinaryField()),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "job",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="chunks", to="operations.job"
                    ),
                ),
            ],
            options={
                "ordering": ["job", "number"],
                "indexes": [models.Index(fields=["created_at"], name="job_chunk_age")],
                "constraints": [models.UniqueConstraint(fields=("job", "number"), name="job_chunk_once")],
            },
        ),
        migrations.RunSQL(FORWARDS, BACKWARDS),
    ]
