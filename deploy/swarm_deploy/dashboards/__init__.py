"""The Grafana dashboards: what they show (`boards`), as Grafana's JSON (`grafana`), and as pictures (`pictures`)."""
