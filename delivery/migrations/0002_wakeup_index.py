"""django-q2's table has no index but its primary key: a lane's look-up would read every delayed wake-up."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("delivery", "0001_initial"), ("django_q", "0019_alter_task_options_alter_ormq_key_alter_ormq_lock_and_more")]

    operations = [
        migrations.RunSQL(
            "CREATE INDEX IF NOT EXISTS delivery_wakeup ON django_q_ormq (key, lock)",
            "DROP INDEX IF EXISTS delivery_wakeup",
        )
    ]
