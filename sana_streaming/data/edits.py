"""All edits that `nano` is taught: for each a true result for every source, and the words people ask for it with."""

from sana_streaming.data.backgrounds import BACKGROUNDS
from sana_streaming.data.both import BOTH
from sana_streaming.data.objects import OBJECTS
from sana_streaming.data.pairs import Edit
from sana_streaming.data.whole import WHOLE

EDITS: dict[str, Edit] = WHOLE | OBJECTS | BACKGROUNDS | BOTH
