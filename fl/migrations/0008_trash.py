from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("fl", "0007_device_tags"),
    ]

    operations = [
        migrations.AddField(
            model_name="run",
            name="deleted_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="run",
            name="is_protected",
            field=models.BooleanField(default=False),
        ),
        migrations.AddField(
            model_name="stream",
            name="in_trash",
            field=models.BooleanField(default=False),
        ),
        migrations.AddConstraint(
            model_name="run",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("deleted_at__isnull", True),
                    models.Q(("ended_at__isnull", False), ("is_protected", False)),
                    _connector="OR",
                ),
                name="run_in_the_trash_is_over_and_unprotected",
            ),
        ),
    ]
