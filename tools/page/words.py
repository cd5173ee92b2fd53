"""Writes every word of the captions that a model was trained on, sorted, for the page's hints.

    PYTHONPATH=tools/train python tools/page/words.py CACHE/train/dataset.tar.xz > www/models/sticker/words.txt
"""

import re
import sys
import unicodedata
from pathlib import Path

from inkbloom_train.data import captions, colours, dataset

data = dataset.load(Path(sys.argv[1]))
parts = [captions.TEMPLATE_WORDS, *colours.NAMES]
parts += [phrase for style in data.styles.values() for phrase in style.phrases]
for index in data.of_split(dataset.TRAIN):
    row = data.rows[index]
    parts += [*row.names, *row.keywords]
plain = "".join(c for c in unicodedata.normalize("NFKD", " ".join(parts).lower()) if not unicodedata.combining(c))
print("\n".join(sorted(set(re.findall(r"[^\W\d_]{3,}", plain)))))
