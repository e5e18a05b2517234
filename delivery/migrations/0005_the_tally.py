from django.db import migrations, models
from django.db.models.deletion import CASCADE

STATUSES = ("pending", "sending", "sent", "failed", "unknown", "skipped")
SUMS = ", ".join(f"sum(CASE WHEN status = '{name}' THEN 1 ELSE 0 END)" for name in STATUSES)
COUNT = f"""
INSERT INTO delivery_ledgertally (issue_id, holder, {", ".join(STATUSES)})
SELECT issue_id, 0, {SUMS} FROM delivery_emaildelivery GROUP BY issue_id
"""


class Migration(migrations.Migration):

    dependencies = [
        ('delivery', '0004_the_ledger'),
        ('newsletter', '0003_house_in_history'),
    ]

    operations = [
        migrations.CreateModel(
            name='LedgerTally',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('holder', models.BigIntegerField(default=0)),
                *((name, models.BigIntegerField(default=0)) for name in STATUSES),
                ('issue', models.ForeignKey(db_index=False, on_delete=CASCADE, to='newsletter.issue')),
            ],
        ),
        migrations.AddConstraint(
            model_name='ledgertally',
            constraint=models.UniqueConstraint(fields=('issue', 'holder'), name='ledger_tally_once'),
        ),
        migrations.RunSQL(COUNT, migrations.RunSQL.noop),
    ]
