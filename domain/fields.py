"""The two kinds of text that commands and events hold in place of what nobody but their owner may read."""

from typing import NewType

#: Ciphertext (base64) under the data key of a mailbox or user.
Sealed = NewType("Sealed", str)
#: An HMAC under an installation key: equal values mean equal things, and no more can be told.
Digest = NewType("Digest", str)
