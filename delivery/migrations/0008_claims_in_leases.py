from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('delivery', '0007_a_lighter_ledger'),
    ]

    operations = [
        migrations.AddField(
            model_name='lease',
            name='claim_first',
            field=models.BigIntegerField(null=True),
        ),
        migrations.AddField(
            model_name='lease',
            name='claim_last',
            field=models.BigIntegerField(null=True),
        ),
    ]
