from django.db import migrations, models
from django.db.models.deletion import CASCADE


class Migration(migrations.Migration):

    dependencies = [
        ('delivery', '0005_the_tally'),
        ('newsletter', '0003_house_in_history'),
    ]

    operations = [
        migrations.CreateModel(
            name='IssueReport',
            fields=[
                ('issue', models.OneToOneField(on_delete=CASCADE, primary_key=True, serialize=False, to='newsletter.issue')),
                ('figures', models.JSONField()),
                ('counted_at', models.DateTimeField()),
            ],
        ),
        migrations.RemoveIndex(model_name='emaildelivery', name='delivery_books'),
        migrations.AddIndex(
            model_name='emaildelivery',
            index=models.Index(fields=['issue', 'status', 'id'], name='delivery_books'),
        ),
        migrations.RemoveIndex(model_name='emaildelivery', name='delivery_address'),
    ]
