from django.db import migrations, models
from django.db.models.deletion import CASCADE


class Migration(migrations.Migration):

    dependencies = [
        ('newsletter', '0003_house_in_history'),
    ]

    operations = [
        migrations.RemoveIndex(model_name='subscriber', name='subscriber_address'),
        migrations.AddIndex(
            model_name='subscriber',
            index=models.Index(fields=['address'], name='subscriber_beginning', opclasses=['varchar_pattern_ops']),
        ),
        migrations.RemoveIndex(model_name='subscription', name='subscription_confirmed'),
        migrations.AlterField(
            model_name='subscription',
            name='newsletter',
            field=models.ForeignKey(db_index=False, on_delete=CASCADE, to='newsletter.newsletter'),
        ),
        migrations.AddIndex(
            model_name='subscription',
            index=models.Index(fields=['newsletter', 'state', 'id'], name='subscription_standing'),
        ),
        migrations.AddIndex(
            model_name='subscription',
            index=models.Index(fields=['newsletter', 'id'], name='subscription_newsletter'),
        ),
        migrations.AddIndex(
            model_name='subscription',
            index=models.Index(fields=['state', 'id'], name='subscription_state'),
        ),
        migrations.AddIndex(
            model_name='suppression',
            index=models.Index(fields=['reason', 'id'], name='suppression_reason'),
        ),
    ]
