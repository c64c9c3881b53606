"""Reports: HTML pages of one file that open offline, with tables and plots, and the tables in Markdown."""
