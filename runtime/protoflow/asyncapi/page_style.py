"""The style of the page, which is light or dark like the reader's system."""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root { --text: #1d2129; --soft: #5b6472; --page: #ffffff; --card: #f5f6f8; --line: #d9dde3;
  --link: #0b57b7; --receive: #0a6b46; --send: #7a3fb0; --warn: #9a3412; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e8ec; --soft: #a3abb8; --page: #14171c;
  --card: #1d2229; --line: #343b46; --link: #7db4ff; --receive: #5fd39f; --send: #cfa2f7;
  --warn: #ffb27a; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
body { margin: 0; display: flex; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, sans-serif; }
nav { position: sticky; top: 0; height: 100vh; width: 18rem; flex: none; overflow: auto;
  padding: 1rem; border-right: 1px solid var(--line); font-size: .875rem; }
nav ul { list-style: none; margin: 0 0 .75rem; padding: 0; }
nav ul ul { padding-left: .75rem; margin-top: .25rem; }
nav a { overflow-wrap: anywhere; }
main { flex: 1; min-width: 0; max-width: 64rem; padding: 1.5rem 2rem 6rem; }
h1 { margin: 0; font-size: 1.75rem; overflow-wrap: anywhere; }
h2 { margin: 2.5rem 0 1rem; border-bottom: 1px solid var(--line); }
h3 { margin: 0 0 .5rem; font-size: 1.05rem; overflow-wrap: anywhere; }
h4 { margin: 1rem 0 .25rem; color: var(--soft); }
a { color: var(--link); text-decoration: none; }
a:hover, a:focus { text-decoration: underline; }
p { margin: .5rem 0; white-space: pre-line; }
.facts { color: var(--soft); }
article { background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: 1rem 1.25rem; margin: 1rem 0; }
article:target { outline: 2px solid var(--link); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .75rem .3rem 0;
  border-top: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; }
th:empty { padding: 0; border: 0; }
td:first-child { min-width: 9rem; }
code, pre { font-family: ui-monospace, monospace; font-size: .85em; }
pre { overflow-x: auto; padding: .75rem; background: var(--page); border: 1px solid var(--line);
  border-radius: .35rem; }
.rule { display: inline-block; margin: 0 .75rem .15rem 0; color: var(--soft);
  overflow-wrap: anywhere; }
.action { color: var(--send); text-transform: uppercase; font-size: .8em; }
.action.receive { color: var(--receive); }
.mark { border: 1px solid currentColor; border-radius: .75rem; padding: 0 .5rem;
  margin-left: .35rem; font-size: .75rem; color: var(--soft); white-space: nowrap; }
.mark.sensitive, .mark.deprecated { color: var(--warn); }
summary { cursor: pointer; color: var(--soft); }
@media (max-width: 50rem) { body { display: block; } nav { position: static; height: auto;
  width: auto; border-right: 0; border-bottom: 1px solid var(--line); } main { padding: 1rem; } }
@media print { nav { display: none; } }
"""
