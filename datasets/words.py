r"""Words of many languages, with the characters that readers trip over: ", \, tabs, line breaks, emoji."""

FIRST = [
    "Zoë", "José", "Łukasz", "Søren", "Nguyễn", "Ольга", "Μαρία", "美咲", "지훈", "فاطمة",
    "Anna", "Liam", "Emma", "Noah", "Chidi", "Aylin", "Björn", "Siobhán", "Ravi", "François",
]  # fmt: skip
LAST = [
    "Müller", "O'Neill", "García", "Kowalczyk", "Ångström", "Иванова", "Παππάς", "佐藤", "김", "الزهراء",
    "Smith", "Nakamura", "Okafor", "Şahin", "van der Berg", "Lefèvre", "Singh", "Rossi", "Þórsson",
]  # fmt: skip
COUNTRIES = ["DE", "FR", "JP", "PL", "BR", "US", "GB", "IN", "NG", "TR", "IS", "GR", "KR", "EG", "SE", "VN"]

PRODUCTS = [
    "café crème 250 g", '27" display', "USB-C cable", "naïve art print", "smörgås tray", "tea 抹茶",
    "shelf 1½ m", "jalapeño sauce", "notebook A5", 'lamp "Nord"', "sofa, grey", "bike light",
]  # fmt: skip
TAGS = ["new", "sale", "été", "gift", "bulk", "b2b", "返品", "vip", "mobile", "app", "promo-10", "late"]

WORDS = [
    "please", "leave", "at", "the", "door", "danke", "schön", "merci", "beaucoup", "left", "behind",
    "house", "ring", "twice", "ありがとう", "спасибо", "obrigado", "call", "before", "delivery", "floor",
    "gate", "code", "fragile", "naïve", "Straße", "größe", "señor", "neighbour", "garage", "côté", "quickly",
    "ευχαριστώ", "damaged", "missing", "wrong", "colour", "👍", "🚚", "not", "again",
]  # fmt: skip
ODDITIES = [
    '"sic"', "C:\\temp\\new", "a\tb", "line one\nline two", "50 % off", "</script>", "e\u0301", "\u2028", ",",
]  # fmt: skip
"""What must be quoted or escaped somewhere."""
