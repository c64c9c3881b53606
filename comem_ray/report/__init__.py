"""Reports: HTML pages of one file that open offline, with tables and plots. Knows neither training nor evaluation."""
