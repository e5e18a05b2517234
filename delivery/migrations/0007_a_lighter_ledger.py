from django.db import migrations, models
from django.db.models.deletion import SET_NULL


class Migration(migrations.Migration):

    dependencies = [
        ('delivery', '0006_quick_pages'),
        ('newsletter', '0003_house_in_history'),
    ]

    operations = [
        migrations.RemoveIndex(model_name='emaildelivery', name='delivery_claim'),
        migrations.AlterField(
            model_name='emaildelivery',
            name='sender',
            field=models.ForeignKey(
                db_constraint=False, db_index=False, null=True, on_delete=SET_NULL, to='delivery.lease'
            ),
        ),
        migrations.AlterField(
            model_name='emaildelivery',
            name='subscription',
            field=models.ForeignKey(
                db_constraint=False, null=True, on_delete=SET_NULL, to='newsletter.subscription'
            ),
        ),
    ]
