"""Records many large events, which are more than all buffers on the way to a peer hold together.

python -m tests.journeys.loud COUNT BYTES: records COUNT events of about BYTES each.
"""

import sys

import django


def main():
    django.setup()
    from tests.realtime.acts import note, record_now  # models can be imported only now

    count, size = int(sys.argv[1]), int(sys.argv[2])
    for start in range(0, count, 200):
        record_now("system", *[note(f"{start + n} " + "x" * size) for n in range(min(200, count - start))])


if __name__ == "__main__":
    main()
