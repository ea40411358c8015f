"""What protoc made of penstock_engine.proto."""
