from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("operations", "0002_append_only_audit")]

    operations = [
        migrations.CreateModel(
            name="TaskTiming",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("task", models.CharField(max_length=200)),
                ("outcome", models.CharField(max_length=20)),
                ("runs", models.PositiveBigIntegerField(default=0)),
                ("seconds", models.FloatField(default=0.0)),
            ],
            options={
                "ordering": ["task", "outcome"],
                "constraints": [models.UniqueConstraint(fields=("task", "outcome"), name="task_timing_once")],
            },
        ),
    ]
