import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.common.acl.AccessControlEntry;
import org.apache.kafka.common.acl.AccessControlEntryFilter;
import org.apache.kafka.common.acl.AclBinding;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.acl.AclPermissionType;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.ResourcePattern;
import org.apache.kafka.common.resource.ResourceType;

/**
 * Forbids everybody to write to a topic, to read it, or all that can be done with it, or permits it again:
 * {@code Acl.java BROKERS forbid|close|hide|permit TOPIC}.
 */
public class Acl {
    public static void main(String[] args) throws Exception {
        var topic = new ResourcePattern(ResourceType.TOPIC, args[2], PatternType.LITERAL);
        try (var admin = Admin.create(Map.<String, Object>of("bootstrap.servers", args[0]))) {
            if (!args[1].equals("permit")) {
                var operation = switch (args[1]) {
                    case "hide" -> AclOperation.ALL;
                    case "close" -> AclOperation.READ;
                    default -> AclOperation.WRITE;
                };
                var forbidden = entry(operation, AclPermissionType.DENY);
                // A topic that has a rule at all is closed to all that none permits.
                var permitted = entry(AclOperation.ALL, AclPermissionType.ALLOW);
                admin.createAcls(List.of(new AclBinding(topic, permitted), new AclBinding(topic, forbidden))).all().get();
            } else {
                var forbidden = new AccessControlEntryFilter(null, null, AclOperation.ANY, AclPermissionType.DENY);
                admin.deleteAcls(List.of(new AclBindingFilter(topic.toFilter(), forbidden))).all().get();
            }
        }
    }

    private static AccessControlEntry entry(AclOperation operation, AclPermissionType permission) {
        return new AccessControlEntry("User:*", "*", operation, permission);
    }
}
