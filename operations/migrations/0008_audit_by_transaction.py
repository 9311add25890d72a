"""The index that sealing walks has the order it walks in: one transaction may have written a million entries."""

from django.contrib.postgres.operations import AddIndexConcurrently, RemoveIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [('operations', '0007_platform_dns')]

    operations = [
        AddIndexConcurrently('auditentry', models.Index(fields=['xid', 'id'], name='audit_by_transaction')),
        RemoveIndexConcurrently('auditentry', 'audit_by_xid'),
    ]
