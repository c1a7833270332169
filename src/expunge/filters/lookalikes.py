"""Letters that look like Latin ones: a frozen table.

Made once from Unicode's confusables (UTS #39, https://www.unicode.org/Public/security/, Unicode License v3; as packed
in confusable-homoglyphs 3.3.1), from which letters written left to right were taken that stand for one ASCII letter or
digit and that compatibility decomposition leaves as they are; and from the names of Unicode 14: LATIN SMALL LETTER D
WITH STROKE, LATIN LETTER SMALL CAPITAL A, REGIONAL INDICATOR SYMBOL LETTER A and their like stand for the letter in the
name. Eta and omega were added as n and w. Capital and small letters of other alphabets stand for the same letter,
chosen by the small one: otherwise a Russian phrase would not be found in capitals.

Digests that were stored rest on it. A table that a library renews would make them match nothing: when this one changes,
so must `expunge.filters.marks.VERSION`.
"""

from __future__ import annotations

_LOOK = {
    "2": "ƨϩᒿꙅꝛ",
    "3": "ȝɜʒзӡⳍꝫ𑣊𖼻",
    "4": "Ꮞ𑣏",
    "5": "𑣛",
    "6": "бᏮⳓ𑣕",
    "7": "𐓺𑣆",
    "8": "ȣ𐌚",
    "9": "ⳋꝯ𑣌𑣖",
    "a": "ɐɑαаᎪᗅᴀᶏⱥꓮ𐊠𖽀🅐🅰🇦",
    "b": "ƀƃƅɓʙβвьᏏᏴᑲᖯᗷᵬᶀꓐꞗꞵ𐊂𐊡𐌁🅑🅱🇧",
    "c": "ƈȼɕсᏟᴄⲥꓚꞓꞔ𐊢𐌂𐐽𐔜𝼝🅒🅲🇨",
    "d": "đƌȡɖɗԁᎠᏧᑯᗞᗪᴅᵭᶁᶑꓒꓓꟈ🅓🅳🇩",
    "e": "ǝɇεеҽᎬᴇᶒⱸⴹꓰꬲꬴ𐊆𑣎🅔🅴🇪",
    "f": "ƒϝքᖴᵮᶂẝꓝꜰꞙꬵ𐊇𐊥𐔥𑣂🅕🅵🇫",
    "g": "ƍǥɠɡɢʛԍցᏀᏳᵷᶃꓖꞡꬶ🅖🅶🇬",
    "h": "ħɥɦʜʮʯнһհᎻᏂᕼⱨⲏꓧꞕ𐋏🅗🅷🇭",
    "i": "ıɨɩɪιіӏᎥᴉᶖꙇ𑣃𝼚🅘🅸🇮",
    "j": "ȷɉɟʄʝϳјᎫᒍᴊꓙ🅙🅹🇯",
    "k": "ƙʞκкᏦᛕᴋᶄⱪⲕꓗꝁꝃꝅꞣ𐔘🅚🅺🇰",
    "l": "łƚǀȴɫɬɭʟᏞᒪᛁᴌᶅⱡⲓⳑⵏꓡꓲꝉꞁꞎꬷꬸꬹ𐊊𐌉𐑃𐔦𑣒𖼖𖼨𝼄𝼑𝼓🅛🅻🇱",
    "m": "ɯɰɱμϻмᎷᗰᛖᴍᵯᶆⲙꓟꬺ𐊰𐌑🅜🅼🇲",
    "n": "ƞȵɲɳɴηոռᵰᶇⲛꓠꞑꞥꬻ𐔓🅝🅽🇳",
    "o": "øɵοσоօჿዐᴏᴑⱺⲟⵔꓳꝋꝍꬽ𐊒𐊫𐐬𐓪𐔖𑣈𑣗𝼛🅞🅾🇴",
    "p": "ƥρрᏢᑭᴘᵱᵽᶈⲣꓑꝑꝓꝕ𐊕🅟🅿🇵",
    "q": "ɋʠԛգզⵕꝗꝙꞯ🅠🆀🇶",
    "r": "ɍɹɺɻɼɽɾʀгᎡᎱᏒᖇᴦᵲᵳᶉⱹⲅꓣꞧꭆꭇꭈꭉꭋꭌꭨ𐓜𖼵𝼈𝼕𝼖🅡🆁🇷",
    "s": "ƽȿʂѕտᏕᏚᵴᶊꓢꜱꞩꟊ𐊖𐑈𑣁𖼺𝼞🅢🆂🇸",
    "t": "ŧƫƭȶʇʈτтᎢᴛᵵⱦⲧꓔ𐊗𐊱𐌕𖼊𝼉𝼍🅣🆃🇹",
    "u": "υսሀᑌᴜᶙꓴꞟꞹꭎꭒ𐓶𑣘𖽂🅤🆄🇺",
    "v": "ʋʌνѵᏙᐯᴠᶌⱱⱴⴸꓦꛟꝟ𐔝𑜆𑣀𖼈🅥🆅🇻",
    "w": "ʍωѡԝաᎳᏔᴡⱳꓪ𑜊𑜎𑜏🅦🆆🇼",
    "x": "χхᕁᕽᚷᶍⲭⵝꓫꭓꭖꭗꭘꭙ𐊐𐊴𐌗𐔧🅧🆇🇽",
    "y": "ƴɏɣʎʏγуүყᎩᎽỿⲩꓬꭚ𐊲𑣜𖽃𝼆🅨🆈🇾",
    "z": "ƶȥɀʐʑζᏃᴢᵶᶎⱬꓜ𑣄𑣉🅩🆉🇿",
}
LOOKALIKES: dict[str, str] = {like: letter for letter, likes in _LOOK.items() for like in likes}

# Capital eta, nu and upsilon look like other letters than the small ones do; a text that holds one is read so too.
CAPITALS: dict[str, str] = {
    "\N{GREEK CAPITAL LETTER ETA}": "h",
    "\N{GREEK CAPITAL LETTER NU}": "n",
    "\N{GREEK CAPITAL LETTER UPSILON}": "y",
}
