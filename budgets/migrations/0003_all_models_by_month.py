from django.db import migrations, models

# The sums of all models beside those of each; what was summed up before has them from here on.
TOTALS = """
INSERT INTO budgets_usagemonth (month, tenant_id, tenant, model, input_tokens, output_tokens, cost_usd, requests)
SELECT month, tenant_id, tenant, '', sum(input_tokens), sum(output_tokens), sum(cost_usd), sum(requests)
  FROM budgets_usagemonth WHERE model <> '' GROUP BY month, tenant_id, tenant
ON CONFLICT (tenant_id, month, tenant, model) DO NOTHING
"""


class Migration(migrations.Migration):
    dependencies = [("budgets", "0002_provider_keys_and_former_tenants")]

    operations = [
        migrations.RemoveIndex(model_name="usagemonth", name="usage_month"),
        migrations.AlterField(
            model_name="usagemonth",
            name="model",
            field=models.CharField(blank=True, db_collation="C", max_length=200),
        ),
        migrations.AddIndex(
            model_name="usagemonth",
            index=models.Index(
                condition=models.Q(("model", "")), fields=["month", "-cost_usd"], name="usage_month_most"
            ),
        ),
        migrations.RunSQL(TOTALS, "DELETE FROM budgets_usagemonth WHERE model = ''"),
    ]
