"""What a report page shows of runs, as data: curves, points, tables, in bounded memory."""
