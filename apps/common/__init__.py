"""What every runner needs and no model does: command line, result cells and tables, figures and report pages."""
