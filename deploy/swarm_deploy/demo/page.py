"""The report's page: its text and its looks. `<!--name-->` is where `report` puts a part."""

from __future__ import annotations

__all__ = ["PAGE"]

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Agent Swarm: a portfolio's risk</title>
<style>
:root {
  --page: #f7f7f5; --card: #ffffff; --ink: #1c1c1a; --soft: #66655f; --rule: #e4e3de; --grid: #ecebe7;
  --c0: #a9a79f; --c1: #2a6fdb; --c2: #d9730d; --c3: #c9302c; --c4: #1b8a6b; --c5: #7a5cd6; --good: #1b7f4d; --bad: #c9302c;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #151514; --card: #1e1e1c; --ink: #ecebe6; --soft: #a3a29a; --rule: #33322f; --grid: #2a2927;
    --c0: #6f6e67; --c1: #6ea8ff; --c2: #f0a04b; --c3: #ff7a70; --c4: #4fc3a1; --c5: #b19cff; --good: #5bd096; --bad: #ff7a70;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 960px; margin: 0 auto; padding: 40px 20px 64px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 6px; letter-spacing: -0.01em; }
h2 { font-size: 18px; margin: 0 0 4px; }
h3 { font-size: 15px; margin: 24px 0 4px; }
p { margin: 4px 0 12px; max-width: 76ch; }
.lead, .note, small { color: var(--soft); }
section { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 22px 24px; margin-top: 18px; }
.verdict { font-weight: 600; margin: 14px 0 0; }
.good { color: var(--good); font-style: normal; } .bad { color: var(--bad); font-style: normal; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(165px, 1fr)); gap: 12px; margin-top: 18px; }
.tile { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 14px 16px; }
.tile b { display: block; font-size: 22px; line-height: 1.25; font-weight: 650; font-variant-numeric: tabular-nums; }
.tile span { display: block; font-size: 13px; } .tile small { display: block; font-size: 12px; }
.scroll { overflow-x: auto; margin: 10px 0; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 500; color: var(--soft); }
th, td { padding: 5px 14px 5px 0; border-bottom: 1px solid var(--grid); vertical-align: top; }
.n { text-align: right; white-space: nowrap; }
svg { display: block; width: 100%; height: auto; margin: 6px 0; overflow: visible; }
svg text { font-size: 11.5px; fill: var(--soft); font-variant-numeric: tabular-nums; }
svg .note { fill: var(--ink); font-weight: 600; }
.grid { stroke: var(--grid); fill: none; } .axis { stroke: var(--rule); fill: none; }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round; } .area { stroke: none; opacity: .16; }
.stick { fill: none; stroke-width: .7; } .mark { stroke: var(--ink); stroke-dasharray: 4 3; fill: none; }
.mark.dim { stroke: var(--soft); } .mark.kill { stroke: var(--bad); }
.line.c0, .stick.c0 { stroke: var(--c0); } .line.c1 { stroke: var(--c1); } .line.c2 { stroke: var(--c2); }
.line.c3 { stroke: var(--c3); }
.bar.c1, .area.c1, .key.c1 { fill: var(--c1); background: var(--c1); } .bar.c1 { opacity: .75; }
.key.c0 { background: var(--c0); } .key.c2 { background: var(--c2); } .key.c3 { background: var(--c3); }
.dot.c3 { fill: var(--c3); stroke: var(--card); }
.span.k-backtest, .key.k-backtest { fill: var(--c1); background: var(--c1); }
.span.k-simulation, .key.k-simulation { fill: var(--c4); background: var(--c4); }
.span.k-resample, .key.k-resample { fill: var(--c0); background: var(--c0); }
.span.k-what-if, .key.k-what-if { fill: var(--c5); background: var(--c5); }
.span.again, .key.again { fill: var(--c2); background: var(--c2); }
.span { opacity: .85; } .span.again { opacity: 1; }
.legend { font-size: 12.5px; color: var(--soft); margin: 8px 0 0; display: flex; flex-wrap: wrap; gap: 4px 6px; align-items: center; }
.key { width: 11px; height: 11px; border-radius: 3px; display: inline-block; margin-left: 10px; } .key:first-child { margin-left: 0; }
</style>
</head>
<body><main>
<h1>A portfolio's risk, computed by a swarm while one of its agents was killed</h1>
<p class="lead">One-day Value at Risk and Expected Shortfall at 99 % from twenty years of real daily closes, by filtered
historical simulation and by Monte Carlo, with a backtest. Every figure was computed again in one plain process.</p>
<!--verdict-->
<div class="tiles"><!--tiles--></div>

<section><h2>Risk</h2>
<p class="note">Losses are positive. The hedged book adds a position in the VIX, whose history here begins in 2014.</p>
<!--figures-->
<h3>Tomorrow's profit or loss of the core book</h3>
<!--histogram-->
<h3>How certain is the VaR?</h3>
<p class="note">The scenarios drawn again with replacement, and measured each time.</p>
<!--uncertainty-->
</section>

<section><h2>Backtest</h2>
<p class="note">Each day's forecast was made from the days before it, with the models fitted anew as they would have been
then. A good 99 % VaR is breached on 1 % of the days (Kupiec), and not in clusters (Christoffersen); a p-value below 0.05
speaks against the model. Z₂ (Acerbi and Székely) is about 0 when ES is right, and clearly negative when it is too low.</p>
<!--backtest-->
<!--backtest_table-->
</section>

<section><h2>The swarm at work</h2>
<h3>Throughput</h3>
<!--throughput-->
<h3>Latency of what-if questions</h3>
<p class="note">From the client's submission to its answer, while all cores were busy with the rest.</p>
<!--latency-->
<!--services-->
</section>

<section><h2>An agent dies</h2>
<p class="note">Halfway through, a busy compute agent was killed with SIGKILL. Each bar is a task, in the lane of the agent
that finished it.</p>
<!--failover-->
</section>

<section><h2>What was checked</h2>
<!--checks-->
</section>

<section><h2>Data and machine</h2>
<!--data-->
<!--facts-->
</section>
</main></body></html>
"""
