from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("gates", "0002_baseline_and_circumstances")]

    operations = [
        migrations.AddField(
            model_name="measurement",
            name="code_version",
            field=models.CharField(
                blank=True,
                default="",
                help_text="of the worker that claimed it last",
                max_length=64,
            ),
            preserve_default=False,
        ),
    ]
