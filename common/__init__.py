"""What every app shares and no app owns: errors, commands, API fields, forms, pages, formatting, plotting."""
