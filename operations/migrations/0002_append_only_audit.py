"""The audit trail refuses UPDATE, DELETE and TRUNCATE, whoever asks.

Statement triggers, so that also a change of no row is refused; ALWAYS, so that session_replication_role cannot switch
them off in passing. Only the table's owner can remove them, and that is a deed of its own.
"""

from django.db import migrations

FORWARDS = """
CREATE FUNCTION operations_audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'The audit trail is append-only: % is refused', TG_OP USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER operations_audit_no_change BEFORE UPDATE OR DELETE ON operations_auditentry
    FOR EACH STATEMENT EXECUTE FUNCTION operations_audit_is_append_only();
CREATE TRIGGER operations_audit_no_truncate BEFORE TRUNCATE ON operations_auditentry
    FOR EACH STATEMENT EXECUTE FUNCTION operations_audit_is_append_only();
ALTER TABLE operations_auditentry ENABLE ALWAYS TRIGGER operations_audit_no_change;
ALTER TABLE operations_auditentry ENABLE ALWAYS TRIGGER operations_audit_no_truncate;
"""

BACKWARDS = """
DROP TRIGGER operations_audit_no_change ON operations_auditentry;
DROP TRIGGER operations_audit_no_truncate ON operations_auditentry;
DROP FUNCTION operations_audit_is_append_only();
"""


class Migration(migrations.Migration):
    dependencies = [("operations", "0001_initial")]

    operations = [migrations.RunSQL(FORWARDS, BACKWARDS)]
