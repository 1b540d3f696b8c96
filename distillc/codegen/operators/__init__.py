"""What distillc knows of torch's operators."""
