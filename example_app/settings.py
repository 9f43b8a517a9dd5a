"""What the environment says: where the queues are, and what stands in front of the server."""

import os

# Where tasks wait for Celery's workers, and where their results are kept. Without a broker the web server works.
CELERY_BROKER_URL = os.environ.get("CELERY_BROKER_URL")
CELERY_RESULT_BACKEND = os.environ.get("CELERY_RESULT_BACKEND") or CELERY_BROKER_URL

# What connects the web servers with each other, and with the workers. One Redis may be both, broker and message queue.
MESSAGE_QUEUE = os.environ.get("MESSAGE_QUEUE") or CELERY_BROKER_URL
MESSAGE_QUEUE_SECRET = os.environ.get("MESSAGE_QUEUE_SECRET") or None

# How many proxies stand in front, whose word on the public scheme and host is taken.
TRUSTED_PROXIES = int(os.environ.get("TRUSTED_PROXIES", "0"))
