"""What all tests need of their process."""

import signal

# A shell starts what it runs in the background with Ctrl-C ignored, and so would be all that tests
# start; some of them are about it.
signal.signal(signal.SIGINT, signal.default_int_handler)
