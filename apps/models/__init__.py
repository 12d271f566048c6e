"""`genapps model`: the runner of core_models itself. Any registered model, or the user's own, on any data set."""
