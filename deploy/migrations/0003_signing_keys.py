from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("deploy", "0002_alarms"),
    ]

    operations = [
        migrations.CreateModel(
            name="SigningKey",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "key_id",
                    models.CharField(
                        help_text="stands beside each of its signatures", max_length=64, unique=True
                    ),
                ),
                (
                    "public_hex",
                    models.CharField(help_text="Ed25519, 32 bytes: what a bot pins", max_length=64),
                ),
                (
                    "state",
                    models.CharField(
                        choices=[("next", "next"), ("active", "active"), ("retired", "retired")],
                        default="next",
                        max_length=10,
                    ),
                ),
                ("created_by", models.CharField(max_length=150)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("activated_at", models.DateTimeField(blank=True, null=True)),
                ("retired_at", models.DateTimeField(blank=True, null=True)),
            ],
            options={"ordering": ["-id"]},
        ),
        migrations.AlterField(
            model_name="alarm",
            name="name",
            field=models.CharField(
                choices=[("fallback", "fallback"), ("coins", "coins"), ("signing", "signing")], max_length=20
            ),
        ),
    ]
