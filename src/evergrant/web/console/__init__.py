"""The console for operators: HTML, forms and a session. Each file is one section."""
