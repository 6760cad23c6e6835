from django.db import migrations, models
from django.db.models import F, Q

FOLLOWS = Q(epoch=1, previous=None, kind="inherited") | (
    Q(epoch__gt=1, previous__isnull=False, previous=F("epoch") - 1) & ~Q(kind="inherited")
)
ADVANCES = Q(is_advance=True, previous__isnull=False, previous__lt=F("epoch"))


class Migration(migrations.Migration):
    dependencies = [
        ("deploy", "0003_signing_keys"),
    ]

    operations = [
        migrations.AddField(
            model_name="pointermove",
            name="is_advance",
            field=models.BooleanField(
                default=False,
                help_text="says again what the move before it said, under a higher epoch (ADR 0018)",
            ),
        ),
        migrations.RemoveConstraint(model_name="pointermove", name="epochs_follow_one_another"),
        migrations.AddConstraint(
            model_name="pointermove",
            constraint=models.CheckConstraint(condition=FOLLOWS | ADVANCES, name="epochs_follow_one_another"),
        ),
    ]
