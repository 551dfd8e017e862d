"""Long texts: made in worker threads, shared by readers, kept in little memory."""
